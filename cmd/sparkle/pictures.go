package main

import (
	"net"

	"sparkle/media"
	"sparkle/media/video"
)

// pictures gives an engine its video side. Package media does not know package video:
// an outer package may import the root, not the reverse.
func pictures(o video.Options) func(media.PictureDeps) (media.Pictures, error) {
	return func(d media.PictureDeps) (media.Pictures, error) {
		o.Emit, o.Log = d.Emit, d.Log
		p, err := video.New(o)
		if err != nil {
			return nil, err
		}
		return plane{p}, nil
	}
}

type plane struct{ *video.Plane }

func (p plane) OpenVideo(leg string, rtp, rtcp *net.UDPConn) error {
	return p.Plane.OpenVideo(leg, video.Sockets{RTP: rtp, RTCP: rtcp})
}

func (p plane) OpenLeg(conference, leg string, rtp, rtcp *net.UDPConn) error {
	return p.Plane.OpenLeg(conference, leg, video.Sockets{RTP: rtp, RTCP: rtcp})
}
