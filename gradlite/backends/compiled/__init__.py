"""The C++ of libraries that are compiled once: `gradlite.backends.libraries` loads them."""
