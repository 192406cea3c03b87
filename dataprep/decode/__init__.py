"""Decode: one video, or a folder of pictures, into small RGB frames, or the reason why not."""
