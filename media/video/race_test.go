//go:build race

package video

// slow stretches time limits: the race detector makes a start several times slower.
const slow = 5
