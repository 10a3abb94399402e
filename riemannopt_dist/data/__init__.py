"""Where images and labels come from, how they are read and decoded, and what is wrong with a bad one."""
