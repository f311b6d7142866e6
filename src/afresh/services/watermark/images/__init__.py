"""The imperceptible mark of images: how it is put into pixels, and the exact test for it.

`marking.mark_image` is what writes an image calls, `evidence.image_evidence` is what asks for the mark.
"""
