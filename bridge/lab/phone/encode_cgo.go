//go:build cgo

package phone

import (
	"fmt"

	"github.com/pion/mediadevices/pkg/codec"
	"github.com/pion/mediadevices/pkg/codec/openh264"
)

// newEncoder makes mediadevices' own H.264 encoder of a camera: not the server's, so the
// two have to agree on the wire. maxSlice bounds a NAL unit, 0 leaves one slice a picture.
func newEncoder(c *camera, bitrate, maxSlice int) (codec.ReadCloser, error) {
	property := c.Properties()[0]
	r, err := c.VideoRecord(property)
	if err != nil {
		return nil, err
	}
	p, err := openh264.NewParams()
	if err != nil {
		return nil, fmt.Errorf("camera: encoder: %w", err)
	}
	p.BitRate = bitrate
	p.EnableFrameSkip = false // a skipped picture comes as an empty one without an error
	p.IntraPeriod = 10 * camFPS
	p.MultipleThreadIdc = 1
	p.SliceMode = openh264.SMSingleSlice
	if maxSlice > 0 {
		p.SliceMode = openh264.SMSizelimitedSlice
		p.SliceSizeConstraint, p.MaxNalSize = uint(maxSlice), uint(maxSlice)+50
	}
	enc, err := p.BuildVideoEncoder(r, property)
	if err != nil {
		return nil, fmt.Errorf("camera: encoder: %w", err)
	}
	return enc, nil
}
