"""What a cache would change for a folder of images and a training script: measured, before there is one."""
