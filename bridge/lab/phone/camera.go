package phone

import (
	"image"
	"io"
	"sync/atomic"

	"github.com/pion/mediadevices/pkg/driver"
	mdframe "github.com/pion/mediadevices/pkg/frame"
	"github.com/pion/mediadevices/pkg/io/video"
	"github.com/pion/mediadevices/pkg/prop"
)

// camera is a mediadevices driver that shows a speaker's picture. Each Read is the next
// one; whoever reads keeps the time.
type camera struct {
	speaker int
	n       int64
	open    atomic.Bool
	img     *image.YCbCr
}

var _ interface {
	driver.Adapter
	driver.VideoRecorder
} = (*camera)(nil)

// Open implements driver.Adapter.
func (c *camera) Open() error {
	c.img = image.NewYCbCr(image.Rect(0, 0, camWidth, camHeight), image.YCbCrSubsampleRatio420)
	c.open.Store(true)
	return nil
}

// Close implements driver.Adapter.
func (c *camera) Close() error { c.open.Store(false); return nil }

// Properties implements driver.Adapter.
func (c *camera) Properties() []prop.Media {
	return []prop.Media{{Video: prop.Video{Width: camWidth, Height: camHeight, FrameRate: camFPS, FrameFormat: mdframe.FormatI420}}}
}

// VideoRecord implements driver.VideoRecorder. A picture is the camera's, valid until the
// next Read.
func (c *camera) VideoRecord(prop.Media) (video.Reader, error) {
	if !c.open.Load() {
		return nil, io.ErrClosedPipe
	}
	return video.ReaderFunc(func() (image.Image, func(), error) {
		if !c.open.Load() {
			return nil, func() {}, io.EOF
		}
		draw(c.img, c.speaker, c.n)
		c.n++
		return c.img, func() {}, nil
	}), nil
}
