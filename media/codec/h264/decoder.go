//go:build cgo

package h264

/*
#cgo pkg-config: libavcodec libavutil
#include <stdlib.h>
#include <string.h>
#include <libavcodec/avcodec.h>
#include <libavutil/log.h>

typedef struct {
	AVCodecContext *ctx;
	AVPacket *pkt;
	AVFrame *frame;
	uint8_t *in;
	int cap;
} spk_dec;

static void spk_dec_close(spk_dec *d) {
	if (!d) return;
	avcodec_free_context(&d->ctx);
	av_packet_free(&d->pkt);
	av_frame_free(&d->frame);
	free(d->in);
	free(d);
}

static spk_dec *spk_dec_open(void) {
	av_log_set_level(AV_LOG_QUIET); // a broken stream would otherwise write to stderr for ever
	const AVCodec *codec = avcodec_find_decoder(AV_CODEC_ID_H264);
	if (!codec) return NULL;
	spk_dec *d = calloc(1, sizeof *d);
	if (!d) return NULL;
	d->ctx = avcodec_alloc_context3(codec);
	d->pkt = av_packet_alloc();
	d->frame = av_frame_alloc();
	if (!d->ctx || !d->pkt || !d->frame) { spk_dec_close(d); return NULL; }
	d->ctx->thread_count = 1;
	d->ctx->flags |= AV_CODEC_FLAG_LOW_DELAY;
	d->ctx->max_pixels = 1920 * 1088;
	if (avcodec_open2(d->ctx, codec, NULL) < 0) { spk_dec_close(d); return NULL; }
	return d;
}

// spk_dec_put feeds one access unit. The input is copied because libavcodec reads
// past its end (AV_INPUT_BUFFER_PADDING_SIZE) and the caller's buffer has no tail.
#cgo noescape spk_dec_put
#cgo nocallback spk_dec_put
static int spk_dec_put(spk_dec *d, const uint8_t *au, int len) {
	if (len + AV_INPUT_BUFFER_PADDING_SIZE > d->cap) {
		int cap = 2 * len + AV_INPUT_BUFFER_PADDING_SIZE;
		uint8_t *in = realloc(d->in, cap);
		if (!in) return AVERROR(ENOMEM);
		d->in = in;
		d->cap = cap;
	}
	memcpy(d->in, au, len);
	memset(d->in + len, 0, AV_INPUT_BUFFER_PADDING_SIZE);
	av_packet_unref(d->pkt);
	d->pkt->data = d->in;
	d->pkt->size = len;
	return avcodec_send_packet(d->ctx, d->pkt);
}

typedef struct {
	uint8_t *y, *u, *v;
	int ys, us, vs, w, h, damaged;
} spk_pic;

#cgo noescape spk_dec_get
#cgo nocallback spk_dec_get
// spk_dec_get: 1 a picture, 0 none yet, < 0 an error.
static int spk_dec_get(spk_dec *d, spk_pic *p) {
	int rc = avcodec_receive_frame(d->ctx, d->frame);
	if (rc == AVERROR(EAGAIN) || rc == AVERROR_EOF) return 0;
	if (rc < 0) return rc;
	AVFrame *f = d->frame;
	if (f->format != AV_PIX_FMT_YUV420P && f->format != AV_PIX_FMT_YUVJ420P) return AVERROR_PATCHWELCOME;
	p->y = f->data[0]; p->u = f->data[1]; p->v = f->data[2];
	p->ys = f->linesize[0]; p->us = f->linesize[1]; p->vs = f->linesize[2];
	p->w = f->width; p->h = f->height;
	p->damaged = f->decode_error_flags != 0 || (f->flags & AV_FRAME_FLAG_CORRUPT) != 0;
	return 1;
}
static int spk_enomem(void) { return AVERROR(ENOMEM); }
*/
import "C"

import (
	"fmt"
	"unsafe"

	"sparkle/media/codec/yuv"
)

// Decoder turns access units into pictures, one in one out, without delay. It is
// not safe for concurrent use. Close it.
type Decoder struct {
	c       *C.spk_dec
	img     *yuv.Image
	damaged bool
	// dirty: something went wrong since the last fresh start. What libavcodec learnt
	// from a broken parameter set (a reordering delay, say) outlives the key frame
	// that should mend it, so the next parameter set gets a new decoder.
	dirty bool
}

// NewDecoder makes a decoder. It fails only when libavcodec has no H.264 or there
// is no memory.
func NewDecoder() (*Decoder, error) {
	c := C.spk_dec_open()
	if c == nil {
		return nil, fmt.Errorf("%w: libavcodec opens no H.264 decoder", ErrUnavailable)
	}
	return &Decoder{c: c}, nil
}

// Decode takes one access unit (Annex B) and returns its picture, which is the
// Decoder's and valid until the next Decode or Close. Nil without an error means
// that the unit held no picture (only parameter sets) or cannot be shown yet (no
// key frame so far). Errors wrap ErrStream; the next unit may be good again.
func (d *Decoder) Decode(au []byte) (*yuv.Image, error) {
	if d.c == nil {
		return nil, fmt.Errorf("%w: decoder is closed", ErrUnavailable)
	}
	if len(au) == 0 || len(au) > MaxUnit {
		return nil, fmt.Errorf("%w: access unit of %d octets", ErrStream, len(au))
	}
	if d.dirty && hasSPS(au) {
		fresh := C.spk_dec_open()
		if fresh == nil {
			return nil, fmt.Errorf("%w: no memory", ErrUnavailable)
		}
		C.spk_dec_close(d.c)
		d.c, d.dirty = fresh, false
	}
	img, err := d.decode(au)
	if img == nil || err != nil || d.damaged {
		d.dirty = true
	}
	return img, err
}

// hasSPS says whether an access unit starts a sequence.
func hasSPS(au []byte) bool {
	for i := 0; i+3 < len(au); i++ {
		if au[i] == 0 && au[i+1] == 0 && au[i+2] == 1 && au[i+3]&0x1f == 7 {
			return true
		}
	}
	return false
}

func (d *Decoder) decode(au []byte) (*yuv.Image, error) {
	putErr := C.spk_dec_put(d.c, (*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(au))), C.int(len(au)))
	if putErr == C.spk_enomem() {
		return nil, fmt.Errorf("%w: no memory", ErrUnavailable)
	}
	var out *yuv.Image
	for { // more than one comes only from a stream that makes us reorder: the last is the newest
		var pic C.spk_pic
		switch rc := C.spk_dec_get(d.c, &pic); {
		case rc == 1:
			if err := d.take(&pic); err != nil {
				return nil, err
			}
			out = d.img
			continue
		case rc < 0 && out == nil:
			return nil, fmt.Errorf("%w: libavcodec code %d", ErrStream, int(rc))
		}
		break
	}
	if out == nil && putErr < 0 {
		return nil, fmt.Errorf("%w: libavcodec code %d", ErrStream, int(putErr))
	}
	return out, nil
}

func (d *Decoder) take(pic *C.spk_pic) error {
	w, h := int(pic.w), int(pic.h)
	if w < 2 || h < 2 || w > MaxWidth || h > MaxHeight || pic.us != pic.vs || pic.ys <= 0 || pic.us <= 0 {
		return fmt.Errorf("%w: picture of %dx%d", ErrStream, w, h)
	}
	cw, ch, ys, cs := (w+1)/2, (h+1)/2, int(pic.ys), int(pic.us)
	src := yuv.Image{Width: w, Height: h, YStride: ys, CStride: cs,
		Y: unsafe.Slice((*byte)(pic.y), (h-1)*ys+w),
		U: unsafe.Slice((*byte)(pic.u), (ch-1)*cs+cw),
		V: unsafe.Slice((*byte)(pic.v), (ch-1)*cs+cw)}
	d.img = yuv.Resized(d.img, w, h)
	d.damaged = pic.damaged != 0
	return src.CopyTo(d.img)
}

// Damaged says whether the last picture that Decode returned had to be concealed
// in parts.
func (d *Decoder) Damaged() bool { return d.damaged }

// Swap hands over the picture that Decode returned last: it is the caller's from here on.
// The next one is written over old, one handed over before or nil.
func (d *Decoder) Swap(old *yuv.Image) *yuv.Image {
	img := d.img
	d.img = old
	return img
}

// Close frees the decoder; a second Close does nothing.
func (d *Decoder) Close() {
	C.spk_dec_close(d.c)
	d.c = nil
}
