"""PyTorch's places of what programs import from the insides of its data loader."""

from gradlite.utils.data._utils import collate as collate
