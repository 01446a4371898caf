"""Pictures in files: folders, tar files and arrays, read, cropped and drawn in sheets."""
