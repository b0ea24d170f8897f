//go:build !race

package video

const slow = 1
