//go:build deps

package main

import (
	_ "github.com/alexedwards/argon2id"
	_ "github.com/elastic/go-seccomp-bpf"
	_ "github.com/emiago/sipgo"
	_ "github.com/getkin/kin-openapi/openapi3filter"
	_ "github.com/google/uuid"
	_ "github.com/landlock-lsm/go-landlock/landlock"
	_ "github.com/oapi-codegen/runtime"
	_ "github.com/oklog/ulid/v2"
	_ "github.com/pion/mediadevices"
	_ "github.com/pion/mediadevices/pkg/codec/openh264"
	_ "github.com/pion/mediadevices/pkg/driver/audiotest"
	_ "github.com/pion/mediadevices/pkg/driver/videotest"
	_ "github.com/pion/rtcp"
	_ "github.com/pion/rtp"
	_ "github.com/pion/sdp/v3"
	_ "github.com/pressly/goose/v3"
	_ "github.com/prometheus/client_golang/prometheus/promhttp"
	_ "github.com/prometheus/common/expfmt"
	_ "github.com/spf13/cobra"
	_ "go.uber.org/goleak"
	_ "golang.org/x/image/font/opentype"
	_ "golang.org/x/net/ipv4"
	_ "golang.org/x/sys/unix"
	_ "google.golang.org/grpc"
	_ "google.golang.org/protobuf/proto"
	_ "gopkg.in/yaml.v3"
	_ "modernc.org/sqlite"
	_ "pgregory.net/rapid"
)
