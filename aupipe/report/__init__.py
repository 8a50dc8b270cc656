"""What a person looks at: checks of a data set, contact sheets, videos with the subject's box drawn in."""
