"""The training loop under every stage that trains, and the measurements and checkpoints that it keeps."""
