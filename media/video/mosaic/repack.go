package mosaic

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/image/font/opentype"
)

var errFont = errors.New("mosaic: not a TrueType or OpenType font")

// ParseFont parses the first font of a TrueType or OpenType file or collection.
// Debian's WenQuanYi Micro Hei keeps its tables at odd offsets, which x/image
// refuses: such a file is laid out anew in memory first.
func ParseFont(file []byte) (*opentype.Font, error) {
	aligned, err := repack(file)
	if err != nil {
		return nil, err
	}
	f, err := opentype.Parse(aligned)
	if err != nil {
		return nil, fmt.Errorf("mosaic: font: %w", err)
	}
	return f, nil
}

// repack copies the first font of a file into a file of its own, each table on a
// multiple of 4 (OpenType spec, "Organization of an OpenType Font").
func repack(b []byte) ([]byte, error) {
	dir := 0
	if len(b) >= 16 && string(b[:4]) == "ttcf" {
		dir = int(binary.BigEndian.Uint32(b[12:]))
	}
	if len(b) > 64<<20 || dir < 0 || dir+12 > len(b) {
		return nil, errFont
	}
	n := int(binary.BigEndian.Uint16(b[dir+4:]))
	if n == 0 || n > 64 || dir+12+16*n > len(b) {
		return nil, errFont
	}
	out := append([]byte(nil), b[dir:dir+12+16*n]...)
	for i := range n {
		rec := out[12+16*i:]
		off, size := uint64(binary.BigEndian.Uint32(rec[8:])), uint64(binary.BigEndian.Uint32(rec[12:]))
		if off+size > uint64(len(b)) || len(out) > 64<<20 {
			return nil, fmt.Errorf("%w: table %q is outside of the file", errFont, rec[:4])
		}
		binary.BigEndian.PutUint32(rec[8:], uint32(len(out)))
		out = append(out, b[off:off+size]...)
		for len(out)%4 != 0 {
			out = append(out, 0)
		}
	}
	return out, nil
}
