"""The training loop under every stage that trains, and what it watches and keeps."""
