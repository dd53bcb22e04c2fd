"""What leaves the device when a person asks a dermatologist, and what comes back.

Nothing of it imports Kivy; pydicom, highdicom and requests are imported when they are first used.
"""
