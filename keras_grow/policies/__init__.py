"""What is chosen and how it starts: objects of ten lines, arrays in, arrays out."""
