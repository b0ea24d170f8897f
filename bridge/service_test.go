package bridge_test

import (
	"sparkle/bridge"
	"sparkle/bridge/api"
)

var _ api.Service = (*bridge.Bridge)(nil)
