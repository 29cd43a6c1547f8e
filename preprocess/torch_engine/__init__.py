"""Renders an Albumentations recipe in batches on any torch device: its decisions, our pixels.

`decisions` says what is drawn; `compile` turns each step into actions on pixels and folds those that belong together;
`engine` runs the actions of a batch, few launches for images of all sizes. Nothing here is imported by a build on the
CPU: torch costs a worker process seconds and half a gigabyte.
"""
