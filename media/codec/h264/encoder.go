//go:build cgo

package h264

/*
#cgo LDFLAGS: -ldl
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wels/codec_api.h>
#include <wels/codec_ver.h>

// The prototypes of codec_api.h are used for their types only: no symbol of
// openh264 is referenced, so the linker needs (and sees) no library.
typedef struct {
	void *lib;
	int (*create)(ISVCEncoder **);
	void (*destroy)(ISVCEncoder *);
	void (*version)(OpenH264Version *);
} spk_oh;

static char *spk_say(const char *a, const char *b) {
	size_t n = strlen(a) + strlen(b) + 1;
	char *s = malloc(n);
	if (s) snprintf(s, n, "%s%s", a, b);
	return s;
}

// spk_oh_load returns NULL, or a text for free().
static char *spk_oh_load(spk_oh *o, OpenH264Version *v) {
	static const char *names[] = {"libopenh264.so.7", "libopenh264.so.6", "libopenh264.so"};
	char *why = NULL;
	for (unsigned i = 0; i < sizeof names / sizeof *names && !o->lib; i++) {
		o->lib = dlopen(names[i], RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
		if (!o->lib && !why) why = spk_say("", dlerror());
	}
	if (!o->lib) return why ? why : spk_say("dlopen failed", "");
	free(why);
	o->create = dlsym(o->lib, "WelsCreateSVCEncoder");
	o->destroy = dlsym(o->lib, "WelsDestroySVCEncoder");
	o->version = dlsym(o->lib, "WelsGetCodecVersionEx");
	if (!o->create || !o->destroy || !o->version) return spk_say("the library lacks the encoder's symbols", "");
	o->version(v);
	// Parameter structures change between minor versions without a new soname.
	if (v->uMajor != OPENH264_MAJOR || v->uMinor != OPENH264_MINOR) {
		char b[96];
		snprintf(b, sizeof b, "%u.%u, built for %d.%d", v->uMajor, v->uMinor, OPENH264_MAJOR, OPENH264_MINOR);
		return spk_say("the library is version ", b);
	}
	return NULL;
}

static int spk_enc_open(spk_oh *o, ISVCEncoder **out, int w, int h, int fps, int bps, int max_bps, int level, int max_slice) {
	ISVCEncoder *e = NULL;
	if (o->create(&e) != 0 || !e) return -1;
	int quiet = WELS_LOG_QUIET;
	(*e)->SetOption(e, ENCODER_OPTION_TRACE_LEVEL, &quiet);
	SEncParamExt p;
	memset(&p, 0, sizeof p);
	(*e)->GetDefaultParams(e, &p);
	p.iUsageType = CAMERA_VIDEO_REAL_TIME;
	p.iPicWidth = w;
	p.iPicHeight = h;
	p.fMaxFrameRate = fps;
	p.iTargetBitrate = bps;
	p.iMaxBitrate = max_bps;
	p.iRCMode = RC_BITRATE_MODE;
	p.iTemporalLayerNum = 1;
	p.iSpatialLayerNum = 1;
	p.iComplexityMode = LOW_COMPLEXITY;
	p.uiIntraPeriod = 0;
	p.iNumRefFrame = 1;
	p.eSpsPpsIdStrategy = CONSTANT_ID;
	p.bEnableFrameSkip = false;
	p.iEntropyCodingModeFlag = 0;
	p.iMultipleThreadIdc = 1;
	p.bEnableDenoise = false;
	p.bEnableBackgroundDetection = false;
	p.bEnableAdaptiveQuant = true;
	p.bEnableSceneChangeDetect = false;
	p.bEnableFrameCroppingFlag = true;
	p.iMaxQp = 45;
	p.iMinQp = 12;
	SSpatialLayerConfig *l = &p.sSpatialLayers[0];
	l->iVideoWidth = w;
	l->iVideoHeight = h;
	l->fFrameRate = fps;
	l->iSpatialBitrate = bps;
	l->iMaxSpatialBitrate = p.iMaxBitrate;
	l->uiProfileIdc = PRO_BASELINE;
	l->uiLevelIdc = (ELevelIdc)level;
	if (max_slice > 0) {
		l->sSliceArgument.uiSliceMode = SM_SIZELIMITED_SLICE;
		l->sSliceArgument.uiSliceSizeConstraint = max_slice;
		p.uiMaxNalSize = max_slice;
	} else {
		l->sSliceArgument.uiSliceMode = SM_SINGLE_SLICE;
	}
	int rc = (*e)->InitializeExt(e, &p);
	if (rc != 0) { o->destroy(e); return rc; }
	int fmt = videoFormatI420;
	(*e)->SetOption(e, ENCODER_OPTION_DATAFORMAT, &fmt);
	*out = e;
	return 0;
}

static void spk_enc_close(spk_oh *o, ISVCEncoder *e) {
	(*e)->Uninitialize(e);
	o->destroy(e);
}

#cgo noescape spk_enc_encode
#cgo nocallback spk_enc_encode
// Copies the unit to out when it fits. Returns the octets of the unit (0: the
// encoder skipped the picture), or a negative code; *key says whether it is an IDR.
static int spk_enc_encode(ISVCEncoder *e, uint8_t *y, uint8_t *u, uint8_t *v, int ys, int cs, int w, int h,
                          int64_t ms, int idr, uint8_t *out, int cap, int *key) {
	if (idr) (*e)->ForceIntraFrame(e, true);
	SSourcePicture s;
	memset(&s, 0, sizeof s);
	s.iColorFormat = videoFormatI420;
	s.iStride[0] = ys; s.iStride[1] = s.iStride[2] = cs;
	s.pData[0] = y; s.pData[1] = u; s.pData[2] = v;
	s.iPicWidth = w; s.iPicHeight = h;
	s.uiTimeStamp = ms;
	SFrameBSInfo b;
	memset(&b, 0, sizeof b);
	int rc = (*e)->EncodeFrame(e, &s, &b);
	if (rc != 0) return rc > 0 ? -rc : rc;
	*key = b.eFrameType == videoFrameTypeIDR;
	if (b.eFrameType == videoFrameTypeSkip) return 0;
	int n = 0;
	for (int i = 0; i < b.iLayerNum; i++) {
		SLayerBSInfo *l = &b.sLayerInfo[i];
		int len = 0;
		for (int k = 0; k < l->iNalCount; k++) len += l->pNalLengthInByte[k];
		if (n + len > cap) return -1000;
		memcpy(out + n, l->pBsBuf, len);
		n += len;
	}
	return n;
}

static int spk_enc_bitrate(ISVCEncoder *e, int bps, int max_bps) {
	SBitrateInfo b = {SPATIAL_LAYER_ALL, max_bps};
	SBitrateInfo t = {SPATIAL_LAYER_ALL, bps};
	// the ceiling may never be below the target, whichever way we go
	(*e)->SetOption(e, ENCODER_OPTION_MAX_BITRATE, &b);
	int rc = (*e)->SetOption(e, ENCODER_OPTION_BITRATE, &t);
	(*e)->SetOption(e, ENCODER_OPTION_MAX_BITRATE, &b);
	return rc;
}
*/
import "C"

import (
	"fmt"
	"sync"
	"unsafe"

	"sparkle/media/codec/yuv"
)

// lib is the library, loaded once and never unloaded: encoders point into it.
var lib = sync.OnceValues(func() (*C.spk_oh, error) {
	o := (*C.spk_oh)(C.calloc(1, C.sizeof_spk_oh))
	var v C.OpenH264Version
	if why := C.spk_oh_load(o, &v); why != nil {
		defer C.free(unsafe.Pointer(why))
		return nil, fmt.Errorf("%w: openh264: %s", ErrUnavailable, C.GoString(why))
	}
	version = fmt.Sprintf("%d.%d.%d", v.uMajor, v.uMinor, v.uRevision)
	return o, nil
})

var version string // set by lib

// Probe loads the encoder's library and returns its version: what doctor prints,
// and what a process calls before it gives up its right to open files.
func Probe() (string, error) {
	if _, err := lib(); err != nil {
		return "", err
	}
	return "openh264 " + version, nil
}

// Encoder turns pictures into access units. It is not safe for concurrent use.
// Close it.
type Encoder struct {
	oh  *C.spk_oh
	c   *C.ISVCEncoder
	p   Params
	out []byte
	idr bool
}

// NewEncoder makes an encoder; p is first fitted to its level (Fit). The first
// access unit is a key frame. Errors: ErrUnavailable, a bad p.
func NewEncoder(p Params) (*Encoder, error) {
	p, err := Fit(p)
	if err != nil {
		return nil, err
	}
	oh, err := lib()
	if err != nil {
		return nil, err
	}
	level, err := ParseLevel(p.ProfileLevelID)
	if err != nil {
		return nil, err
	}
	e := &Encoder{oh: oh, p: p, out: make([]byte, p.Width*p.Height*2+64<<10)}
	if rc := C.spk_enc_open(oh, &e.c, C.int(p.Width), C.int(p.Height), C.int(p.FPS), C.int(p.BitrateBps), C.int(ceiling(p.BitrateBps, level)), C.int(level), C.int(p.MaxSlice)); rc != 0 {
		return nil, fmt.Errorf("h264: openh264 refuses %+v: code %d", p, int(rc))
	}
	return e, nil
}

// Encode encodes one picture of the encoder's size, taken at ms milliseconds (any
// start, rising), and returns the access unit and whether it is a key frame. Key
// frames carry SPS and PPS. The unit is the Encoder's, valid until the next Encode;
// it is empty, without an error, when the encoder chose to skip the picture.
func (e *Encoder) Encode(m *yuv.Image, ms int64) (au []byte, key bool, err error) {
	if e.c == nil {
		return nil, false, fmt.Errorf("%w: encoder is closed", ErrUnavailable)
	}
	if m.Width != e.p.Width || m.Height != e.p.Height || !m.Whole() {
		return nil, false, fmt.Errorf("h264: picture is %dx%d, the encoder's %dx%d", m.Width, m.Height, e.p.Width, e.p.Height)
	}
	idr, k := C.int(0), C.int(0)
	if e.idr {
		idr = 1
	}
	n := C.spk_enc_encode(e.c, ptr(m.Y), ptr(m.U), ptr(m.V), C.int(m.YStride), C.int(m.CStride), C.int(m.Width), C.int(m.Height),
		C.int64_t(ms), idr, ptr(e.out), C.int(len(e.out)), &k)
	if n < 0 {
		return nil, false, fmt.Errorf("h264: openh264 encode: code %d", int(n))
	}
	if n > 0 {
		e.idr = false // a skipped picture leaves the wish standing
	}
	return e.out[:n], k != 0, nil
}

func ptr(b []byte) *C.uint8_t { return (*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(b))) }

// ForceKeyFrame makes the next picture an IDR.
func (e *Encoder) ForceKeyFrame() { e.idr = true }

// SetBitrate changes the target rate, within the level's limit.
func (e *Encoder) SetBitrate(bps int) error {
	if e.c == nil {
		return fmt.Errorf("%w: encoder is closed", ErrUnavailable)
	}
	p := e.p
	p.BitrateBps = bps
	p, err := Fit(p)
	if err != nil {
		return err
	}
	level, err := ParseLevel(p.ProfileLevelID)
	if err != nil {
		return err
	}
	if rc := C.spk_enc_bitrate(e.c, C.int(p.BitrateBps), C.int(ceiling(p.BitrateBps, level))); rc != 0 {
		return fmt.Errorf("h264: openh264 bit rate %d: code %d", p.BitrateBps, int(rc))
	}
	e.p = p
	return nil
}

// Close frees the encoder; a second Close does nothing.
func (e *Encoder) Close() {
	if e.c != nil {
		C.spk_enc_close(e.oh, e.c)
		e.c = nil
	}
}
