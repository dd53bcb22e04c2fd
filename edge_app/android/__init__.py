"""The app on Android: recipe, Java classes, and what Python asks the system for."""
