package config

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Fault is one thing wrong with a configuration.
type Fault struct {
	Line   int    // 1-based; 0 when it is not in the file (a default, the environment)
	Key    string // http.listen, attachments[0].targets[1]; empty for syntax
	Text   string
	unread bool // it is a file's that the configuration names: that is not there or cannot be used
}

func (f Fault) String() string {
	var b strings.Builder
	if f.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", f.Line)
	}
	if f.Key != "" {
		b.WriteString(f.Key + ": ")
	}
	return b.String() + f.Text
}

// Faults is every fault of one configuration, in the order of the file.
type Faults []Fault

func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, fault := range f {
		lines[i] = fault.String()
	}
	return strings.Join(lines, "\n")
}

// envPrefix starts every override: SPARKLE__HTTP__LISTEN is http.listen and
// SPARKLE__ATTACHMENTS__0__AUTH__PASSWORD the password of the first attachment. The
// value is read as YAML.
const envPrefix = "SPARKLE__"

// maxFile bounds a configuration file: a larger one is a mistake.
const maxFile = 1 << 20

// Load reads the file at path ("" is an empty one), then the overrides of environ
// ("NAME=value", as os.Environ gives them), then the files of secrets and certificates, and
// checks the whole. The error is Faults when the contents are wrong.
func Load(path string, environ []string) (File, error) {
	var text []byte
	if path != "" {
		f, err := os.Open(path)
		if err != nil {
			return File{}, err
		}
		defer f.Close()
		if text, err = io.ReadAll(io.LimitReader(f, maxFile+1)); err != nil {
			return File{}, err
		}
		if len(text) > maxFile {
			return File{}, fmt.Errorf("%s: larger than %d bytes", path, maxFile)
		}
	}
	return Parse(text, environ)
}

// Plan is Load of what is not to be run yet: that files of secrets or certificates are not there
// is no error, but said in unread. In place of a secret is one that nobody has.
func Plan(path string, environ []string) (c File, unread Faults, err error) {
	c, err = Load(path, environ)
	var faults Faults
	if !errors.As(err, &faults) {
		return c, nil, err
	}
	wrong := slices.DeleteFunc(slices.Clone(faults), func(f Fault) bool { return f.unread })
	if len(wrong) > 0 {
		return c, nil, faults
	}
	for i := range c.Attachments {
		a := &c.Attachments[i]
		for _, s := range append(a.Auth.secrets(), a.Challenge.secrets()...) {
			if s.file != "" && *s.to == "" {
				*s.to = strings.Repeat("0", 32)
			}
		}
	}
	return c, faults, nil
}

// Parse is Load of a file's text.
func Parse(text []byte, environ []string) (File, error) {
	l := loader{lines: map[string]int{}}
	cfg := l.decode(text)
	l.overrides(&cfg, environ)
	for i := range cfg.Attachments {
		a, key := &cfg.Attachments[i], fmt.Sprintf("attachments[%d]", i)
		l.secrets(a.Auth.secrets(), key+".auth")
		l.secrets(a.Challenge.secrets(), key+".challenge")
		l.pair(key+".tls.cert_file", a.TLS.CertFile, key+".tls.key_file", a.TLS.KeyFile)
		l.roots(key+".tls.ca_file", a.TLS.CAFile)
	}
	l.pair("http.tls_cert_file", cfg.HTTP.TLSCertFile, "http.tls_key_file", cfg.HTTP.TLSKeyFile)
	l.check(&cfg)
	if len(l.faults) > 0 {
		slices.SortStableFunc(l.faults, func(a, b Fault) int { return a.Line - b.Line })
		return cfg, l.faults
	}
	return cfg, nil
}

type loader struct {
	lines  map[string]int // key path → line
	faults Faults
}

func (l *loader) fault(key, format string, args ...any) {
	l.faults = append(l.faults, Fault{Line: l.line(key), Key: key, Text: fmt.Sprintf(format, args...)})
}

// unread is a fault of a file that a key names.
func (l *loader) unread(key, format string, args ...any) {
	l.fault(key, format, args...)
	l.faults[len(l.faults)-1].unread = true
}

// read reads a file that a key names; that it cannot be read is a fault.
func (l *loader) read(key, file string) (text []byte, ok bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		l.unread(key, "%v", err)
	}
	return text, err == nil
}

// line is the key's line, or its nearest parent's: a missing key has none of its own.
func (l *loader) line(key string) int {
	for key != "" {
		if n, ok := l.lines[key]; ok {
			return n
		}
		cut := strings.LastIndexAny(key, ".[")
		if cut < 0 {
			break
		}
		key = key[:cut]
	}
	return 0
}

func (l *loader) decode(text []byte) File {
	cfg := Default()
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		l.typeFaults(err, "")
		return cfg
	}
	if len(root.Content) == 0 { // nothing but comments
		return cfg
	}
	l.index(root.Content[0], "")
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&cfg); err != nil && !errors.Is(err, io.EOF) {
		l.typeFaults(err, "")
	}
	for i := range cfg.Attachments {
		if a := &cfg.Attachments[i]; len(a.wrong) > 0 {
			l.typeFaults(&yaml.TypeError{Errors: a.wrong}, "")
			a.wrong = nil
		}
	}
	var more yaml.Node
	if dec.Decode(&more) == nil {
		l.faults = append(l.faults, Fault{Line: more.Line, Text: "a second document: the file has one"})
	}
	return cfg
}

// UnmarshalYAML gives an attachment its defaults before its keys. Wrong types and unknown
// keys are kept in it for decode to collect: yaml leaves an entry with an error out, and
// then its other faults would go unsaid and those of later entries carry wrong indices.
func (a *Attachment) UnmarshalYAML(n *yaml.Node) error {
	type plain Attachment // without this method
	given := struct{ Mode string }{"ue"}
	_ = n.Decode(&given) // what is wrong with it is said below
	p := plain(DefaultAttachment(given.Mode))
	for _, err := range []error{unknownKeys(n, reflect.TypeFor[plain]()), n.Decode(&p)} {
		if te := (*yaml.TypeError)(nil); errors.As(err, &te) {
			p.wrong = append(p.wrong, te.Errors...)
		} else if err != nil {
			return err
		}
	}
	*a = Attachment(p)
	return nil
}

// UnmarshalYAML takes a target as its host alone, or as a section.
func (t *Target) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		t.short = true
		return n.Decode(&t.Host)
	}
	type plain Target
	return n.Decode((*plain)(t))
}

// unknownKeys is KnownFields for a node: yaml.v3 loses that setting inside an
// UnmarshalYAML.
func unknownKeys(n *yaml.Node, t reflect.Type) error {
	var unknown yaml.TypeError
	if n.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice {
		for _, item := range n.Content {
			if inner := (*yaml.TypeError)(nil); errors.As(unknownKeys(item, t.Elem()), &inner) {
				unknown.Errors = append(unknown.Errors, inner.Errors...)
			}
		}
		if len(unknown.Errors) > 0 {
			return &unknown
		}
		return nil
	}
	if n.Kind != yaml.MappingNode || t.Kind() != reflect.Struct {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		field, ok := fieldFor(t, key.Value)
		if !ok {
			unknown.Errors = append(unknown.Errors, fmt.Sprintf("line %d: field %s not found in type %s", key.Line, key.Value, t))
			continue
		}
		var inner *yaml.TypeError
		if errors.As(unknownKeys(n.Content[i+1], field.Type), &inner) {
			unknown.Errors = append(unknown.Errors, inner.Errors...)
		}
	}
	if len(unknown.Errors) > 0 {
		return &unknown
	}
	return nil
}

func fieldFor(t reflect.Type, key string) (reflect.StructField, bool) {
	for f := range t.Fields() {
		if f.Tag.Get("yaml") == key {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

var (
	yamlLine     = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)$`)
	unknownField = regexp.MustCompile(`^field (\S+) not found in type .*$`)
	wrongType    = regexp.MustCompile("^cannot unmarshal !!\\w+ (`.*`|into) ?(?:into )?(.*)$")
)

// typeFaults turns yaml's errors into faults; from names an environment variable.
func (l *loader) typeFaults(err error, from string) {
	texts := []string{err.Error()}
	var te *yaml.TypeError
	if errors.As(err, &te) {
		texts = te.Errors
	}
	for _, text := range texts {
		f := Fault{Key: from, Text: strings.TrimPrefix(text, "yaml: ")}
		if m := yamlLine.FindStringSubmatch(text); m != nil {
			f.Line, _ = strconv.Atoi(m[1])
			f.Text = m[2]
		}
		if m := unknownField.FindStringSubmatch(f.Text); m != nil {
			f.Text = fmt.Sprintf("unknown key %q", m[1])
		} else if m := wrongType.FindStringSubmatch(f.Text); m != nil {
			f.Text = fmt.Sprintf("%s is not a %s", strings.Trim(m[1], "`"), typeWords(m[2]))
			if from == "" {
				f.Key = l.keyOn(f.Line)
			}
		}
		if from != "" {
			f.Line = 0
		}
		l.faults = append(l.faults, f)
	}
}

func typeWords(goType string) string {
	switch goType {
	case "time.Duration":
		return "duration (30s, 5m, 1h)"
	case "int", "float64":
		return "number"
	case "bool":
		return "true or false"
	case "[]string", "[]int", "[]config.Target":
		return "list"
	case "string":
		return "text"
	}
	return "section"
}

// index notes the line of every key.
func (l *loader) index(n *yaml.Node, path string) {
	if path != "" {
		l.lines[path] = n.Line
	}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := join(path, n.Content[i].Value)
			l.index(n.Content[i+1], key)
			l.lines[key] = n.Content[i].Line
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			l.index(item, fmt.Sprintf("%s[%d]", path, i))
		}
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// keyOn is the key of a line; "" if the line has several that are not inside each other.
func (l *loader) keyOn(line int) (key string) {
	var keys []string
	for k, n := range l.lines {
		if n == line {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys) // a parent before what is in it
	for _, k := range keys {
		if !strings.HasPrefix(k, key) {
			return ""
		}
		key = k
	}
	return key
}

// overrides applies the environment. Secrets may come this way, so no value is ever
// part of a fault's text.
func (l *loader) overrides(cfg *File, environ []string) {
	slices.Sort(environ)
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		rest, ok := strings.CutPrefix(name, envPrefix)
		if !ok {
			continue
		}
		v, err := target(reflect.ValueOf(cfg).Elem(), strings.Split(strings.ToLower(rest), "__"))
		if err != nil {
			l.faults = append(l.faults, Fault{Key: name, Text: err.Error()})
			continue
		}
		if v.Kind() == reflect.String {
			v.SetString(value) // a password of digits is still text
			continue
		}
		if err := yaml.Unmarshal([]byte(value), v.Addr().Interface()); err != nil {
			l.faults = append(l.faults, Fault{Key: name, Text: "not a " + typeWords(v.Type().String())})
		}
	}
}

// target finds the field that path names.
func target(v reflect.Value, path []string) (reflect.Value, error) {
	for _, step := range path {
		switch v.Kind() {
		case reflect.Struct:
			f, ok := fieldFor(v.Type(), step)
			if !ok {
				return v, fmt.Errorf("unknown key %q", step)
			}
			v = v.FieldByIndex(f.Index)
		case reflect.Slice:
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= v.Len() {
				return v, fmt.Errorf("no entry %q: there are %d", step, v.Len())
			}
			v = v.Index(i)
		default:
			return v, fmt.Errorf("%q is inside a value", step)
		}
	}
	if v.Kind() == reflect.Struct {
		return v, errors.New("is a section, not a value")
	}
	return v, nil
}

// secret is one that may be in a file of its own.
type secret struct {
	name, file string
	to         *string
}

func (a *Auth) secrets() []secret {
	return []secret{{"password", a.PasswordFile, &a.Password}, {"k", a.KFile, &a.K}, {"op", a.OPFile, &a.OP}, {"opc", a.OPcFile, &a.OPc}}
}

func (c *Challenge) secrets() []secret { return []secret{{"password", c.PasswordFile, &c.Password}} }

// secrets reads the *_file keys. A secret given twice is a fault: which one holds?
func (l *loader) secrets(all []secret, key string) {
	for _, s := range all {
		if s.file == "" {
			continue
		}
		fileKey := key + "." + s.name + "_file"
		if *s.to != "" {
			l.fault(fileKey, "%s is given too: use one", s.name)
			continue
		}
		text, ok := l.read(fileKey, s.file)
		if *s.to = strings.TrimSpace(string(text)); *s.to == "" && ok {
			l.unread(fileKey, "%s is empty", s.file)
		}
	}
}

// pair reads a certificate and its key as the daemon will. That one of them is not named is for
// check to say.
func (l *loader) pair(certKey, certFile, keyKey, keyFile string) {
	if certFile == "" || keyFile == "" {
		return
	}
	cert, ok := l.read(certKey, certFile)
	key, both := l.read(keyKey, keyFile)
	if !ok || !both {
		return
	}
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		l.unread(certKey, "%s with %s: %v", certFile, keyFile, err)
	}
}

// roots reads the certificates that others' must be signed by.
func (l *loader) roots(key, file string) {
	if file == "" {
		return
	}
	if text, ok := l.read(key, file); ok && !x509.NewCertPool().AppendCertsFromPEM(text) {
		l.unread(key, "%s holds no certificate", file)
	}
}
