"""Readers of the files people have words in: subtitles, JSON of recognisers, tables; and how words get their times."""
