//go:build cgo

package yuv

/*
#cgo LDFLAGS: -lyuv
#include <libyuv.h>

#cgo noescape spk_scale
#cgo nocallback spk_scale
static int spk_scale(const uint8_t *sy, int sys, const uint8_t *su, const uint8_t *sv, int scs, int sw, int sh,
                     uint8_t *dy, int dys, uint8_t *du, uint8_t *dv, int dcs, int dw, int dh) {
	return I420Scale(sy, sys, su, scs, sv, scs, sw, sh, dy, dys, du, dcs, dv, dcs, dw, dh, kFilterBox);
}

#cgo noescape spk_rotate
#cgo nocallback spk_rotate
static int spk_rotate(const uint8_t *sy, int sys, const uint8_t *su, const uint8_t *sv, int scs, int sw, int sh,
                      uint8_t *dy, int dys, uint8_t *du, uint8_t *dv, int dcs, int deg) {
	return I420Rotate(sy, sys, su, scs, sv, scs, dy, dys, du, dcs, dv, dcs, sw, sh, (enum RotationMode)deg);
}

#cgo noescape spk_mirror
#cgo nocallback spk_mirror
static int spk_mirror(const uint8_t *sy, int sys, const uint8_t *su, const uint8_t *sv, int scs, int sw, int sh,
                      uint8_t *dy, int dys, uint8_t *du, uint8_t *dv, int dcs) {
	return I420Mirror(sy, sys, su, scs, sv, scs, dy, dys, du, dcs, dv, dcs, sw, sh);
}
*/
import "C"

import (
	"fmt"
	"unsafe"
)

func p(b []byte) *C.uint8_t { return (*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(b))) }

func result(what string, rc C.int) error {
	if rc != 0 {
		return fmt.Errorf("yuv: libyuv %s: code %d", what, int(rc))
	}
	return nil
}

func scale(d, s *Image) error {
	return result("scale", C.spk_scale(p(s.Y), C.int(s.YStride), p(s.U), p(s.V), C.int(s.CStride), C.int(s.Width), C.int(s.Height),
		p(d.Y), C.int(d.YStride), p(d.U), p(d.V), C.int(d.CStride), C.int(d.Width), C.int(d.Height)))
}

func rotate(d, s *Image, degrees int) error {
	return result("rotate", C.spk_rotate(p(s.Y), C.int(s.YStride), p(s.U), p(s.V), C.int(s.CStride), C.int(s.Width), C.int(s.Height),
		p(d.Y), C.int(d.YStride), p(d.U), p(d.V), C.int(d.CStride), C.int(degrees)))
}

func mirror(d, s *Image) error {
	return result("mirror", C.spk_mirror(p(s.Y), C.int(s.YStride), p(s.U), p(s.V), C.int(s.CStride), C.int(s.Width), C.int(s.Height),
		p(d.Y), C.int(d.YStride), p(d.U), p(d.V), C.int(d.CStride)))
}
