#!/usr/bin/env bash
# A participant of the ABAW challenge has the tree of Aff-Wild2, and wants a submission for action units.
set -eu

# The data as the organisers give them out.
ls -1 * annotations/AU_Detection_Challenge/*

# Describe the data set.
aupipe init

# Features of the pictures and of the sound.
aupipe extract --cpu

# Is everything there?
aupipe status

# Are labels late, or faces exchanged?
aupipe check

# Train on folds, so that the validation split is left for the score.
aupipe train --recipe baseline --task au --folds 2 --set epochs=3 --out runs/folds --cpu

# What is it worth?
aupipe evaluate runs/folds --cpu

# Predictions of the validation split as a table, to look into.
aupipe predict runs/folds --split validation --out predictions.csv --cpu

# The submission: the rows of the organisers' sample file, of a test set without labels.
aupipe predict runs/folds --split test --format abaw --sample sample.txt --out submission.txt --cpu
wc -l submission.txt

# A page on what it misses, for my advisor.
aupipe report run runs/folds --cpu
