"""Speed and memory of gradlite, measured beside PyTorch in the same process."""
