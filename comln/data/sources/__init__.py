"""Data sets as people have them on disk, one file each: which files make them up, and how to read them."""
