// Command sparkle is the conference server.
package main

func main() {}
