//go:build !cgo

package phone

import (
	"errors"

	"github.com/pion/mediadevices/pkg/codec"
)

// newEncoder fails: this build has no H.264.
func newEncoder(*camera, int, int) (codec.ReadCloser, error) {
	return nil, errors.New("camera: this build has no H.264 encoder (it was built without cgo)")
}
