"""What headrace tells other programs: metrics as text, signs of life, traces."""
