package mosaic

import (
	"image"
	"image/color"
	"log/slog"
	"os"
	"strings"
	"sync"
	"unicode"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/font/sfnt"
	"golang.org/x/image/math/fixed"
)

// DefaultFonts is where Debian keeps fonts with Chinese, Japanese and Korean
// characters, in the order we like them.
var DefaultFonts = []string{
	"/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
	"/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
	"/usr/share/fonts/truetype/noto/NotoSansCJK-Regular.ttc",
	"/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc",
	"/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf",
}

// Fonts draws text: with the first font found of a list and, for characters that it
// lacks, with a built-in Latin one. It is safe for concurrent use.
type Fonts struct {
	// CJK is the file in use, "" if only the built-in font is there.
	CJK string

	mu    sync.Mutex
	fonts []*opentype.Font // in order of preference
	faces map[int][]face
}

// face is one font at one size.
type face struct {
	font.Face
	font *opentype.Font
}

// LoadFonts reads the first usable font of paths (nil: DefaultFonts). It is to be
// called before a process gives up its right to open files. None found is not an
// error: Latin names stay readable, and one log line says what is missing.
func LoadFonts(paths []string, log *slog.Logger) *Fonts {
	if paths == nil {
		paths = DefaultFonts
	}
	f := &Fonts{faces: map[int][]face{}}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		one, err := ParseFont(b)
		if err == nil {
			f.CJK, f.fonts = p, append(f.fonts, one)
			break
		}
		if log != nil {
			log.Warn("a font is not usable", "file", p, "err", err)
		}
	}
	if f.CJK == "" && log != nil {
		log.Warn("no font with Chinese characters found: name plates show Latin only", "tried", strings.Join(paths, " "))
	}
	latin, err := opentype.Parse(goregular.TTF)
	if err != nil {
		panic("mosaic: the built-in font does not parse: " + err.Error())
	}
	f.fonts = append(f.fonts, latin)
	return f
}

// face returns the faces for a size in pixels, in order of preference.
func (f *Fonts) face(px int) []face {
	if faces, ok := f.faces[px]; ok {
		return faces
	}
	var faces []face
	for _, one := range f.fonts {
		sized, err := opentype.NewFace(one, &opentype.FaceOptions{Size: float64(px), DPI: 72, Hinting: font.HintingFull})
		if err == nil {
			faces = append(faces, face{sized, one})
		}
	}
	f.faces[px] = faces
	return faces
}

// pick is the first face that has the character; the last one draws its box for
// what nobody has.
func pick(faces []face, r rune) font.Face {
	var buf sfnt.Buffer
	for _, f := range faces {
		if i, err := f.font.GlyphIndex(&buf, r); err == nil && i != 0 {
			return f.Face
		}
	}
	return faces[len(faces)-1].Face
}

// width is how wide text would be drawn.
func width(faces []face, text string) int {
	w := fixed.Int26_6(0)
	for _, r := range text {
		a, _ := pick(faces, r).GlyphAdvance(r)
		w += fixed.I(a.Round())
	}
	return w.Ceil()
}

// Draw writes text at px pixels, its left edge at x and its baseline at y, cut with
// an ellipsis so that it is at most maxWidth wide. It returns the width drawn.
func (f *Fonts) Draw(dst *image.RGBA, text string, px, x, y, maxWidth int, c color.Color) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	faces := f.face(px)
	text = ellipsis(faces, text, maxWidth)
	d := font.Drawer{Dst: dst, Src: image.NewUniform(c), Dot: fixed.P(x, y)}
	for _, r := range text {
		d.Face = pick(faces, r)
		d.DrawString(string(r))
		d.Dot.X = fixed.I(d.Dot.X.Round()) // whole pixels: strokes stay sharp
	}
	return d.Dot.X.Round() - x
}

// Width is how wide text is at px pixels.
func (f *Fonts) Width(text string, px int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return width(f.face(px), text)
}

// ellipsis cuts text from its end until it fits.
func ellipsis(faces []face, text string, maxWidth int) string {
	if width(faces, text) <= maxWidth {
		return text
	}
	runes := []rune(text)
	for n := len(runes) - 1; n > 0; n-- {
		if cut := strings.TrimRight(string(runes[:n]), " ") + "…"; width(faces, cut) <= maxWidth {
			return cut
		}
	}
	return ""
}

// clean makes a name drawable: no control or direction characters, single blanks,
// at most 64 characters.
func clean(name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, name)
	name = strings.Join(strings.Fields(name), " ")
	if r := []rune(name); len(r) > 64 {
		name = string(r[:64])
	}
	return name
}

// initial is the character that stands for a name in its avatar.
func initial(name string) string {
	for _, r := range name {
		if unicode.IsLetter(r) || unicode.IsNumber(r) {
			return string(unicode.ToUpper(r))
		}
	}
	return "?"
}
