"""Datasets on disk, batches, masks and importers: everything that knows what a modality looks like."""
