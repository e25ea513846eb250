"""Videos that are pictures one by one: folders of numbered frames, TIFF stacks, DICOM files."""
