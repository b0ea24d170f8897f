package lab

import (
	"fmt"
	"strconv"
	"strings"
)

// DemoRoster is the eight phones of the demo: six that join and two that do not.
func DemoRoster() []HandsetOptions {
	return []HandsetOptions{
		{Number: "+8613800138001", Name: "陈晨", Profile: VolteVideo},
		{Number: "+8613800138002", Name: "Alice", Profile: VolteVideo},
		{Number: "+8613800138003", Name: "李雷", Profile: VolteVideo},
		{Number: "+8613800138004", Name: "Bob", Profile: VolteVoice},
		{Number: "+8613800138005", Name: "韩梅梅", Profile: Video488},
		{Number: "+15550100006", Name: "Carol", Profile: PSTN},
		{Number: "+8613800138007", Name: "王芳", Profile: Busy},
		{Number: "+15550100008", Name: "David", Profile: NoAnswer},
	}
}

// AddDemo adds the phones of DemoRoster. media makes their calls' media; nil is
// NewSilent. On an error those that were added stay until the core closes.
func (c *Core) AddDemo(media MediaFactory) ([]*Handset, error) {
	return c.AddRoster(DemoRoster(), media)
}

// AddRoster adds many handsets; media is for those that bring none.
func (c *Core) AddRoster(roster []HandsetOptions, media MediaFactory) ([]*Handset, error) {
	var out []*Handset
	for _, o := range roster {
		if o.Media == nil {
			o.Media = media
		}
		h, err := c.AddHandset(o)
		if err != nil {
			return out, err
		}
		out = append(out, h)
	}
	return out, nil
}

// Numbers makes n further handsets of one profile, numbered upwards from first, an
// E.164 number: phones in bulk.
func Numbers(first string, n int, p Profile) ([]HandsetOptions, error) {
	digits, plus := strings.CutPrefix(first, "+")
	base, err := strconv.ParseUint(digits, 10, 62)
	if err != nil || !plus || n < 0 {
		return nil, fmt.Errorf("%d numbers from %q: it is not E.164 with +", n, first)
	}
	out := make([]HandsetOptions, n)
	for i := range out {
		out[i] = HandsetOptions{Number: fmt.Sprintf("+%d", base+uint64(i)), Name: fmt.Sprintf("Phone %d", i+1), Profile: p}
	}
	return out, nil
}
