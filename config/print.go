package config

import (
	_ "embed"
	"reflect"

	"gopkg.in/yaml.v3"
)

// Example is the commented example file; a test keeps it equal to the defaults.
//
//go:embed example.yaml
var Example []byte

// Redacted is what stands for a secret in a printed configuration.
const Redacted = "[redacted]"

// Print is the configuration as YAML, secrets redacted.
func Print(c File) ([]byte, error) {
	c.Attachments = append([]Attachment(nil), c.Attachments...) // the caller keeps its secrets
	for i := range c.Attachments {
		a := &c.Attachments[i]
		for _, s := range append(a.Auth.secrets(), a.Challenge.secrets()...) {
			if s.file != "" { // what is printed must load again: the secret is in its file
				*s.to = ""
			}
		}
		redact(reflect.ValueOf(&c.Attachments[i]).Elem())
	}
	return yaml.Marshal(c)
}

func redact(v reflect.Value) {
	for field, value := range v.Fields() {
		switch {
		case value.Kind() == reflect.Struct:
			redact(value)
		case field.Tag.Get("secret") != "" && value.String() != "":
			value.SetString(Redacted)
		}
	}
}
