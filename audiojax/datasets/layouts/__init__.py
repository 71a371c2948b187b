"""How data sets lie on a disk, one a file, each read into an `Info`."""
