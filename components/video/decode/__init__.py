"""From a file's packets to frames in the order and colours that are shown."""
