package lab

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
)

// SparePort is a port of 127.0.0.1 that is free for UDP and TCP, for a program that must
// be told one, as SIPp. It lies below what the kernel hands out by itself, so that
// nobody's socket on "any port" takes it before the program does.
func SparePort() (int, error) {
	lowest := 32768
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		_, _ = fmt.Sscan(string(b), &lowest) // unreadable: Linux' default holds
	}
	const from = 10000
	if lowest <= from {
		return 0, fmt.Errorf("lab: the kernel hands out every port from %d on", lowest)
	}
	for range 100 {
		port := from + rand.IntN(lowest-from)
		t, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			continue
		}
		u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		t.Close()
		if err != nil {
			continue
		}
		u.Close()
		return port, nil
	}
	return 0, errors.New("lab: no spare port in 100 tries")
}
