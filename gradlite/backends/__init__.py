"""Array libraries under the tensors: NumPy for the CPU, CuPy for CUDA."""
