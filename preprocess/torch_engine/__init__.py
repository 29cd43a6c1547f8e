"""Renders an Albumentations recipe in batches on any torch device: its decisions, our pixels.

`decisions` says what is drawn; `programs` turns the steps into actions on pixels, folds those that belong together and
runs those of a batch, few launches for images of all sizes; `decoder` decodes; `renderer` puts all of it together.
Nothing here is imported by a build with OpenCV: torch costs a worker process seconds and half a gigabyte.
"""
