"""What SQL must give on both engines: cases as data, and the way to run them. Used by tests of the runtime and of the servers."""
