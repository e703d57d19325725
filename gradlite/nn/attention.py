"""Which ways of computing attention may be taken: see `sdpa_kernel`."""

from gradlite.backends.sdp import SDPBackend as SDPBackend
from gradlite.backends.sdp import sdpa_kernel as sdpa_kernel
