"""Saving and loading without pickle."""

from gradlite.io.archive import load as load
from gradlite.io.archive import save as save
from gradlite.io.safetensors import load_safetensors as load_safetensors
from gradlite.io.safetensors import save_safetensors as save_safetensors
