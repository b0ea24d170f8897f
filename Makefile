# Sparkle. `make demo` shows it, `make test` proves it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

ARGS ?=
BIN := bin/sparkle
GO ?= go
export CGO_ENABLED ?= 1

# What the build needs, what running needs, what only the tests need: Debian's names.
APT_BUILD := pkg-config gcc libopencore-amrwb-dev libopencore-amrnb-dev libvo-amrwbenc-dev \
             libopus-dev libspandsp-dev libavcodec-dev libavutil-dev libopenh264-dev libyuv-dev
APT_RUN   := fonts-wqy-microhei
APT_TEST  := sip-tester ffmpeg chromium tshark kamailio kamailio-ims-modules kamailio-presence-modules kamailio-sqlite-modules baresip-core baresip-ffmpeg

SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# apt-missing prints those of its arguments that are not installed.
apt-missing = $(shell for p in $(1); do [ "$$(dpkg-query -W -f "\$${db:Status-Status}" $$p 2>/dev/null)" = installed ] || echo $$p; done)

define apt-install
	@missing="$(call apt-missing,$(1))"; \
	if [ -n "$$missing" ]; then \
	  echo "installing: $$missing"; \
	  $(SUDO) apt-get update -qq; \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi
endef

.PHONY: demo ims-lab test bench bench-full soak build quiet-build quiet-deps-test web web-deps deps deps-test lint fmt generate prompts clean

## demo: build everything, start the daemon with the lab, call eight phones
demo: quiet-build
	@exec $(BIN) demo $(ARGS)

## ims-lab: a real IMS core (Kamailio) with the demo's eight phones, to connect a daemon to
ims-lab: deps-test quiet-build
	@exec $(BIN) lab --kamailio $(ARGS)

# What a build says is not what a demo or a bench says: with --json, somebody reads that.
quiet-build:
	@$(MAKE) --no-print-directory build >&2

# SIPp plays the phones of a bench.
quiet-deps-test:
	@$(MAKE) --no-print-directory deps-test >&2

## build: bin/sparkle with the console inside
build: deps web
	$(GO) build -o $(BIN) ./cmd/sparkle

deps:
	$(call apt-install,$(APT_BUILD) $(APT_RUN))

deps-test: deps
	$(call apt-install,$(APT_TEST))

WEB := bridge/console/web
WEB_SRC := $(shell find $(WEB) -type f -not -path '*/node_modules/*' 2>/dev/null) bridge/api/openapi.yaml

web-deps: $(WEB)/node_modules/.package-lock.json
$(WEB)/node_modules/.package-lock.json: $(WEB)/package-lock.json
	cd $(WEB) && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

web: bridge/console/dist/app/index.html
bridge/console/dist/app/index.html: $(WEB)/node_modules/.package-lock.json $(WEB_SRC)
	cd $(WEB) && npm run --silent build
	@touch $@

## lint: format, vet, staticcheck, the build without cgo
lint:
	@unformatted="$$(gofmt -l $$(git ls-files '*.go'))"; if [ -n "$$unformatted" ]; then echo "gofmt: $$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	CGO_ENABLED=0 $(GO) build ./...

## test: everything that can be known in under 12 minutes
test: deps-test build lint
	$(GO) test -race -shuffle=on -timeout 9m ./...
	cd $(WEB) && npm run --silent check && npm test --silent

## bench: the performance table, in five minutes (ARGS=--all: more rows; --json: an object a line)
bench: quiet-deps-test quiet-build
	@exec $(BIN) bench $(ARGS)

## bench-full: how many legs one core carries, case by case
bench-full: quiet-build
	@exec $(BIN) bench --limits $(ARGS)

## soak: an hour of calls, and what the processes hold meanwhile (ARGS="--for 10m --rate 20")
soak: quiet-deps-test quiet-build
	@exec $(BIN) soak $(ARGS)

fmt:
	gofmt -w $$(git ls-files '*.go')

## prompts: speak bridge/prompts/*.wav anew
prompts:
	$(call apt-install,espeak-ng ffmpeg)
	$(GO) generate ./bridge/prompts

## generate: what is made from openapi.yaml and media.proto
generate:
	$(call apt-install,protobuf-compiler)
	GOBIN=$(CURDIR)/bin/tools $(GO) install google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
	PATH="$(CURDIR)/bin/tools:$$PATH" $(GO) generate ./bridge/api ./media/...

clean:
	rm -rf bin bridge/console/dist/app $(WEB)/node_modules
