"""The built-in miniature world: procedural captioned clips, and the means to read them back."""
