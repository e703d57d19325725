"""Programs for those who work on gradlite."""
