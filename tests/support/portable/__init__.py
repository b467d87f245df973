"""What SQL must give on both engines: cases as data, and the way to run them."""
