package bridge_test

import (
	"sparkle/bridge"
	"sparkle/bridge/api"
	"sparkle/bridge/metrics"
	"sparkle/sip"
)

// What the rooms promise each other, checked by the compiler.
var (
	_ api.Service    = (*bridge.Bridge)(nil)
	_ metrics.Source = (*bridge.Bridge)(nil)
	_ bridge.Caller  = (*sip.UA)(nil)
)
