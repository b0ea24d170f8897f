package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sparkle/bridge"
	"sparkle/bridge/api/client"
	"sparkle/bridge/lab"
)

// sparkle runs the program to its end.
func sparkle(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	cmd.WaitDelay = time.Second
	var exit *exec.ExitError
	if e := cmd.Run(); e != nil && !errors.As(e, &exit) || ctx.Err() != nil {
		t.Fatalf("sparkle %v: %v\n%s", args, e, err.String())
	}
	return cmd.ProcessState.ExitCode(), out.String(), err.String()
}

// Every fault of a configuration at once, each as file:line: key: text, exit code 2.
func TestWrongConfiguration(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "sparkle.yaml")
	text := `data_dir: /nowhere
http:
  listen: 127.0.0.1
calls:
  ring_timeout: soon
attachments:
  - name: a
    mode: ue
    local_addr: 0.0.0.0
    challenge: {realm: r}
    tragets: []
    security_agreement: ipsec-3gpp
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"serve", "--config", file}, {"config", "check", file}} {
		code, stdout, stderr := sparkle(t, args...)
		if code != 2 || stdout != "" {
			t.Errorf("%v: exit code %d, stdout %q; want 2 and nothing", args, code, stdout)
		}
		for _, want := range []string{
			file + `:3: http.listen: "127.0.0.1" is not host:port`,
			file + `:5: calls.ring_timeout: soon is not a duration`,
			file + `:9: attachments[0].local_addr: "0.0.0.0" is not a concrete IP`,
			file + `:10: attachments[0].challenge: goes with mode trunk, not ue`,
			file + `:10: attachments[0].challenge.username: is empty`,
			file + `:11: unknown key "tragets"`,
			file + `:12: attachments[0].security_agreement: "ipsec-3gpp" is not one of off, tls`,
		} {
			if !strings.Contains(stderr, want) {
				t.Errorf("%v says\n%swithout %q", args, stderr, want)
			}
		}
	}
	if code, _, stderr := sparkle(t, "serve", "--config", file+".not"); code != 1 || !strings.Contains(stderr, file+".not") {
		t.Errorf("a file that is not there: exit code %d, %q", code, stderr)
	}
}

// A secret or certificate that is not there is an error of a check, with its key; the sheet for
// the carrier is written before there are any.
func TestBeforeThereAreSecrets(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "sparkle.yaml")
	text := `attachments:
  - name: ims
    mode: ue
    transport: tls
    local_addr: 192.0.2.10
    targets: [198.51.100.5:5061]
    domain: ims.example
    impi: a@ims.example
    impu: sip:a@ims.example
    auth: {k_file: /no/k, opc_file: /no/opc}
    tls: {cert_file: /no/cert, key_file: /no/key, ca_file: /no/ca}
`
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(text)
	missing := []string{":10: %sattachments[0].auth.k_file: open /no/k", ":10: %sattachments[0].auth.opc_file: open /no/opc", ":11: %sattachments[0].tls.cert_file: open /no/cert",
		":11: %sattachments[0].tls.key_file: open /no/key", ":11: %sattachments[0].tls.ca_file: open /no/ca"}
	for _, tt := range []struct {
		args   []string
		code   int
		weight string
		has    string
	}{
		{[]string{"config", "check", file}, 2, "", ""},
		{[]string{"config", "interop", file}, 0, "warning: ", "# Interconnection sheet: ims"},
	} {
		code, stdout, stderr := sparkle(t, tt.args...)
		if code != tt.code || !strings.HasPrefix(stdout, tt.has) || tt.has == "" && stdout != "" || strings.Count(stderr, "\n") != len(missing) {
			t.Errorf("%v: exit code %d, stdout %.100q, stderr\n%s", tt.args, code, stdout, stderr)
		}
		for _, m := range missing {
			if want := file + fmt.Sprintf(m, tt.weight); !strings.Contains(stderr, want) {
				t.Errorf("%v says\n%swithout %q", tt.args, stderr, want)
			}
		}
	}
	write(strings.Replace(text, "mode: ue", "mode: pbx", 1))
	if code, stdout, stderr := sparkle(t, "config", "interop", file); code != 2 || stdout != "" || !strings.Contains(stderr, file+`:3: attachments[0].mode: "pbx"`) {
		t.Errorf("the sheet of what cannot be: exit code %d, stdout %.100q, stderr\n%s", code, stdout, stderr)
	}
}

// What keeps the daemon from starting is said in one line that names the key, and
// nothing is left behind.
func TestCannotStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { udp.Close() })
	trunk := func(transport string, port int) string {
		return fmt.Sprintf(`{name: carrier, mode: trunk, transport: %s, local_addr: 127.0.0.1, local_port: %d, `+
			`targets: ["127.0.0.1:9"], domain: sipp.example, impu: "sip:+15550100100@sipp.example"}`, transport, port)
	}
	plain := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	deep := filepath.Join(t.TempDir(), strings.Repeat("long/", 25))
	for _, tt := range []struct {
		name, listen, data, attachment string
		want                           []string
	}{
		{"HTTP port in use", taken.Addr().String(), "", "", []string{"http.listen", "address already in use"}},
		{"SIP TCP port in use", "", "", trunk("tcp", taken.Addr().(*net.TCPAddr).Port), []string{"carrier", taken.Addr().String(), "port in use"}},
		{"SIP UDP port in use", "", "", trunk("udp", udp.LocalAddr().(*net.UDPAddr).Port), []string{"carrier", udp.LocalAddr().String(), "port in use"}},
		{"data_dir is a file", "", plain, "", []string{"data_dir", "not a directory"}},
		{"data_dir cannot be made", "", "/proc/sparkle", "", []string{"data_dir", "/proc/sparkle"}},
		{"data_dir too long for a socket", "", deep, "", []string{"data_dir", "socket"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := filepath.Join(dir, "sparkle.yaml")
			listen, data := "127.0.0.1:0", filepath.Join(dir, "data")
			if tt.listen != "" {
				listen = tt.listen
			}
			if tt.data != "" {
				data = tt.data
			}
			text := fmt.Sprintf("data_dir: %q\nhttp: {listen: %q}\nattachments: [%s]\n", data, listen, tt.attachment)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			code, stdout, stderr := sparkle(t, "serve", "--config", file)
			if code != 1 || stdout != "" {
				t.Errorf("exit code %d, stdout %q; want 1, no address and no password that the next start does not show", code, stdout)
			}
			lines := strings.Split(strings.TrimSpace(stderr), "\n")
			last := lines[len(lines)-1]
			for _, want := range append(tt.want, "sparkle: ") {
				if !strings.Contains(last, want) {
					t.Errorf("the last word is %q, without %q", last, want)
				}
			}
		})
	}
}

// The password of the account that the first start makes is shown by the first that succeeds.
func TestFirstStartThatSucceeds(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := fmt.Sprintf("local_port: %d,", taken.Addr().(*net.TCPAddr).Port)
	d := newDaemon(t, fmt.Sprintf(`attachments: [{name: carrier, mode: trunk, transport: tcp, local_addr: 127.0.0.1, %s `+
		`targets: ["127.0.0.1:9"], domain: sipp.example, impu: "sip:+15550100100@sipp.example"}]`+"\n", port))
	if code, stdout, stderr := sparkle(t, "serve", "--config", d.file); code != 1 || stdout != "" {
		t.Fatalf("with its port in use: exit code %d, stdout %q\n%s", code, stdout, stderr)
	}
	text, err := os.ReadFile(d.file)
	if err == nil {
		err = os.WriteFile(d.file, bytes.ReplaceAll(text, []byte(port), nil), 0o600) // any free one
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "serve", "--config", d.file)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	shown := false
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		shown = shown || strings.HasPrefix(lines.Text(), "First start: account admin, password ")
		if strings.HasPrefix(lines.Text(), "Console: ") {
			_ = cmd.Process.Signal(syscall.SIGTERM) // the exit code tells
		}
	}
	if err := cmd.Wait(); err != nil || !shown {
		t.Errorf("password shown %v, %v", shown, err)
	}
}

// answered is a raw answer of the API.
type answered struct {
	status      int
	ctype       string
	body        string
	Code        string
	Title       string
	Detail      string
	retryAfter  string
	took        time.Duration
	setsCookies bool
}

// ask sends a request as any program may, in good or bad form.
func (d *daemon) ask(method, path, key, ctype string, body io.Reader) answered {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), method, d.url+path, body)
	if err != nil {
		d.t.Fatal(err)
	}
	if ctype != "" {
		req.Header.Set("Content-Type", ctype)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	began := time.Now()
	one := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := one.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	a := answered{status: res.StatusCode, ctype: res.Header.Get("Content-Type"), body: string(b), took: time.Since(began),
		retryAfter: res.Header.Get("Retry-After"), setsCookies: len(res.Cookies()) > 0}
	if a.ctype == "application/problem+json" {
		if err := json.Unmarshal(b, &a); err != nil {
			d.t.Errorf("%s %s: the problem is not JSON: %s", method, path, b)
		}
	}
	return a
}

// apiKey makes a key with the command line, beside the running daemon.
func (d *daemon) apiKey(name string, more ...string) string {
	d.t.Helper()
	code, stdout, stderr := sparkle(d.t, append([]string{"apikey", "new", name, "--config", d.file}, more...)...)
	if code != 0 || strings.TrimSpace(stdout) == "" {
		d.t.Fatalf("apikey new: exit code %d, %q, %q", code, stdout, stderr)
	}
	return strings.TrimSpace(stdout)
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, noPictures)
	key := d.apiKey("bad requests")
	conference := d.conference(bridge.VideoConference)
	d.invite(conference, "+8613800138001", "陈晨")
	members := "/v1/conferences/" + conference + "/members"
	const j = "application/json"
	for _, tt := range []struct {
		name, method, path, ctype, body string
		status                          int
		code                            string
	}{
		{"no such conference", "GET", "/v1/conferences/conf_01J9ZK3V8Q4T5W6X7Y8Z9A0B1C", "", "", 404, "conference_not_found"},
		{"no such conference, ill formed", "GET", "/v1/conferences/..%2f..%2fetc", "", "", 404, ""},
		{"no such member", "GET", members + "/mbr_01J9ZK3V8Q4T5W6X7Y8Z9A0B1C", "", "", 404, "member_not_found"},
		{"no such path", "GET", "/v1/nothing", "", "", 404, ""},
		{"letters for a number", "POST", members, j, `{"number":"call me"}`, 422, "number_invalid"},
		{"too short", "POST", members, j, `{"number":"+861"}`, 422, "number_invalid"},
		{"too long", "POST", members, j, `{"number":"+86138001380011380013800"}`, 422, "number_invalid"},
		{"there already", "POST", members, j, `{"number":"+8613800138001"}`, 409, "member_exists"},
		{"there already, typed otherwise", "POST", members, j, `{"number":"0086 (138) 0013-8001"}`, 409, "member_exists"},
		{"police", "POST", members, j, `{"number":"110"}`, 403, "dial_not_allowed"},
		{"ambulance with prefix", "POST", members, j, `{"number":"+86120"}`, 403, "dial_not_allowed"},
		{"half an object", "POST", members, j, `{"number":`, 400, "malformed_json"},
		{"not UTF-8", "POST", members, j, "{\"number\":\"\xff\xfe\"}", 400, "malformed_json"},
		{"deep", "POST", members, j, strings.Repeat("[", 100000), 400, ""},
		{"wrong type", "POST", members, j, `{"number":8613800138001}`, 422, ""},
		{"a key too many", "POST", members, j, `{"number":"+8613800138002","nubmer":1}`, 422, ""},
		{"a form", "POST", members, "application/x-www-form-urlencoded", `number=1`, 415, "content_type_unsupported"},
		{"over 1 MiB", "POST", members, j, `{"number":"` + strings.Repeat("1", 1<<20) + `"}`, 413, "body_too_large"},
		{"nameless", "POST", "/v1/conferences", j, `{"name":"  ","type":"video"}`, 422, ""},
		{"unknown type", "POST", "/v1/conferences", j, `{"name":"x","type":"hologram"}`, 422, ""},
		{"nobody called", "POST", "/v1/conferences/" + conference + "/calls", j, `{"targets":[]}`, 422, ""},
		{"limit", "GET", "/v1/conferences?limit=many", "", "", 400, "parameter_invalid"},
	} {
		a := d.ask(tt.method, tt.path, key, tt.ctype, strings.NewReader(tt.body))
		if a.status != tt.status || a.ctype != "application/problem+json" || a.Code == "" || tt.code != "" && a.Code != tt.code {
			t.Errorf("%s: %d %s %s (%.200s), want %d %s", tt.name, a.status, a.ctype, a.Code, a.body, tt.status, tt.code)
		}
	}
	// Nothing of it has changed anything.
	got, err := d.api.Members(t.Context(), conference)
	if err != nil || len(got) != 1 {
		t.Errorf("the roster is %+v, %v", got, err)
	}
	// Rows of an array are judged one by one.
	rows, err := d.api.AddMembers(t.Context(), conference, []bridge.MemberSpec{{Number: "+8613800138002"}, {Number: "119"}, {Number: "+8613800138001"}, {Number: "?"}})
	d.numbers = append(d.numbers, "+8613800138002")
	var codes []string
	for _, r := range rows {
		code := ""
		if r.Error != nil {
			code = r.Error.Code
		}
		codes = append(codes, code)
	}
	if want := []string{"", "dial_not_allowed", "member_exists", "number_invalid"}; err != nil || !slices.Equal(codes, want) {
		t.Errorf("rows say %q, %v; want %q", codes, err, want)
	}
	// Without an attachment a call says so.
	wantDown(t, d, conference)
}

// wantDown calls everybody and wants to hear that there is no way to.
func wantDown(t *testing.T, d *daemon, conference string) {
	t.Helper()
	results, err := d.api.Call(t.Context(), conference, bridge.CallRequest{Targets: "all"})
	var problem *client.Error
	if !errors.As(err, &problem) || problem.Code != "attachment_down" || problem.Status != 503 || problem.Detail == nil || *problem.Detail == "" {
		t.Errorf("call without an attachment: %+v, %v; want 503 attachment_down with a sentence", results, err)
	}
	members, err := d.api.Members(t.Context(), conference)
	if err != nil || len(members) == 0 {
		t.Errorf("the roster is %+v, %v", members, err)
	}
	for _, m := range members {
		if m.State != bridge.Idle || m.Leg != nil {
			t.Errorf("member %+v has a leg", m)
		}
	}
	if err := d.api.Ready(t.Context()); err == nil {
		t.Error("ready without an attachment")
	}
}

// A wrong password is answered late, and as an unknown account is; no account may be
// guessed from the difference.
func TestWrongPassword(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, noPictures)
	login := func(account, password string) answered {
		return d.ask("POST", "/v1/sessions", "", "application/json", strings.NewReader(fmt.Sprintf(`{"account":%q,"password":%q}`, account, password)))
	}
	known, unknown := login("admin", "wrong"), login("nobody", "wrong")
	for _, a := range []answered{known, unknown} {
		if a.status != 401 || a.Code != "login_failed" || a.setsCookies || a.took < 200*time.Millisecond {
			t.Errorf("wrong password: %d %s after %v", a.status, a.Code, a.took)
		}
	}
	if known.Code != unknown.Code || known.Detail != unknown.Detail || known.Title != unknown.Title {
		t.Errorf("an unknown account is told from a wrong password:\n%s\n%s", known.body, unknown.body)
	}
	if a := d.ask("GET", "/v1/conferences", "", "", nil); a.status != 401 || a.Code != "unauthenticated" {
		t.Errorf("without a session: %d %s", a.status, a.Code)
	}
	if a := d.ask("GET", "/v1/conferences", "spk_madeup", "", nil); a.status != 401 || a.Code != "key_unknown" {
		t.Errorf("with a made-up key: %d %s", a.status, a.Code)
	}
	// Many guesses at once stand in a line; who would wait long is refused at once, with
	// the time to wait.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	refused := make(chan http.Header, 1)
	var guesses sync.WaitGroup
	for range 16 {
		guesses.Go(func() {
			req, err := http.NewRequestWithContext(ctx, "POST", d.url+"/v1/sessions", strings.NewReader(`{"account":"admin","password":"still wrong"}`))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Content-Type", "application/json")
			res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
			if err != nil {
				return // given up: another one was refused
			}
			defer res.Body.Close()
			var p struct{ Code string }
			if err := json.NewDecoder(res.Body).Decode(&p); err != nil || p.Code != "login_failed" && p.Code != "login_throttled" {
				t.Errorf("a guess is answered %d %+v, %v", res.StatusCode, p, err)
			}
			if res.StatusCode == http.StatusTooManyRequests {
				select {
				case refused <- res.Header:
					cancel()
				default:
				}
			}
		})
	}
	guesses.Wait()
	select {
	case h := <-refused:
		if h.Get("Retry-After") == "" {
			t.Errorf("refused without the time to wait: %v", h)
		}
	default:
		t.Error("16 guesses at once and none was refused")
	}
}

// A core that does not answer REGISTER: the daemon runs, says that no call can be
// placed, and can still be stopped.
func TestCoreDoesNotAnswerREGISTER(t *testing.T) {
	t.Parallel()
	n := startNetwork(t)
	if err := n.core.SetFaults(lab.Faults{SilentRegister: true}); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, n.ue()+noPictures)
	conference := d.conference(bridge.VideoConference)
	d.invite(conference, "+8613800138001", "陈晨")
	eventually(t, "REGISTER at the core", func() error {
		if n.core.Counters()["rx REGISTER"] == 0 {
			return errors.New("none came")
		}
		return nil
	})
	wantDown(t, d, conference)
	all, err := d.api.Attachments(t.Context())
	if err != nil || len(all) != 1 || all[0].Up || all[0].State != "registering" {
		t.Errorf("attachments are %+v, %v", all, err)
	}
}

// A core that stops answering REGISTER: the registration stands until it runs out, so
// calls go on and new ones are placed. The de-registration is not answered either, and
// the daemon ends all the same (stop checks that).
func TestCoreStopsAnsweringREGISTER(t *testing.T) {
	t.Parallel()
	n := startNetwork(t)
	talker := n.handset("+15550100006", lab.PSTN, true)
	listener := n.handset("+15550100007", lab.PSTN, false)
	third := n.handset("+8613800138001", lab.VolteVideo, false)
	x := convene(n, bridge.VideoConference, fewPictures, talker, listener)
	if err := n.core.SetFaults(lab.Faults{SilentRegister: true}); err != nil {
		t.Fatal(err)
	}
	m := x.invite(x.conference, third.Number(), third.Name())
	x.call(x.conference, bridge.CallRequest{Members: []string{m}})
	x.await(x.conference, m, "the conference", in)
	x.unaffected()
}

// A core that rejects our credentials is told apart from one that is silent.
func TestCoreRefusesREGISTER(t *testing.T) {
	t.Parallel()
	n := startNetwork(t)
	d := startDaemon(t, strings.ReplaceAll(n.ue()+noPictures, labSecret, "not the secret"))
	d.pardons = []string{"registration auth_failed"} // somebody has to act
	conference := d.conference(bridge.VideoConference)
	d.invite(conference, "+8613800138001", "陈晨")
	eventually(t, "auth_failed", func() error {
		all, err := d.api.Attachments(context.Background())
		if err == nil && (len(all) != 1 || all[0].State != "auth_failed") {
			err = fmt.Errorf("attachments are %+v", all)
		}
		return err
	})
	wantDown(t, d, conference)
}

// A core that stops answering INVITE: the leg ends within the setup time with a
// sentence, and who is in stays in.
func TestCoreDoesNotAnswerINVITE(t *testing.T) {
	t.Parallel()
	n := startNetwork(t)
	talker := n.handset("+15550100006", lab.PSTN, true)
	listener := n.handset("+15550100007", lab.PSTN, false)
	lost := n.handset("+8613800138001", lab.VolteVideo, false)
	x := convene(n, bridge.VideoConference, fewPictures, talker, listener)
	m := x.invite(x.conference, lost.Number(), lost.Name())
	if err := n.core.SetFaults(lab.Faults{SilentInvite: true}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	x.call(x.conference, bridge.CallRequest{Members: []string{m}})
	o := x.ended(x.conference, m, bridge.NetworkError)
	// The setup time is 5 s, and a late answer to what cannot be cancelled has 5 s more.
	if took := time.Since(began); took < 5*time.Second || took > 20*time.Second {
		t.Errorf("given up after %v", took)
	}
	if !strings.Contains(o.Text.En, "did not respond") {
		t.Errorf("the sentence is %q", o.Text.En)
	}
	if calls := lost.Calls(); len(calls) != 0 {
		t.Errorf("the phone saw %+v", calls)
	}
	x.unaffected()
	// It heals: the next call works.
	if err := n.core.SetFaults(lab.Faults{}); err != nil {
		t.Fatal(err)
	}
	x.call(x.conference, bridge.CallRequest{Members: []string{m}})
	x.await(x.conference, m, "the conference, once healed", in)
}

// unaffected checks that the first two handsets are still in, on their first leg, and
// that the second hears the first.
func (x *table) unaffected() {
	x.t.Helper()
	if loud := rms(x.hears(x.handsets[1], 25)); loud < 500 {
		x.t.Errorf("%s hears %.0f, want the talker", x.handsets[1].Name(), loud)
	}
	for _, m := range x.members[:2] {
		x.await(x.conference, m, "the conference still", in)
		if legs, err := x.api.Legs(x.t.Context(), x.conference, m); err != nil || len(legs) != 1 {
			x.t.Errorf("member %s has %d legs, %v", m, len(legs), err)
		}
	}
}

// Nonsense for an answer ends that leg, and only that, with a word and a BYE.
func TestNonsenseForAnAnswer(t *testing.T) {
	t.Parallel()
	n := startNetwork(t)
	talker := n.handset("+15550100006", lab.PSTN, true)
	listener := n.handset("+15550100007", lab.PSTN, false)
	x := convene(n, bridge.VideoConference, fewPictures, talker, listener)
	for i, body := range []string{
		"this is not SDP",
		"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n",
		"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 99999999999 RTP/AVP 96\r\n",
		"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 18\r\na=rtpmap:18 G729/8000\r\nm=video 0 RTP/AVP 99\r\n",
		"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 999.1.1.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8\r\nm=video 0 RTP/AVP 99\r\n",
	} {
		h := n.handset(fmt.Sprintf("+861380013810%d", i), lab.VolteVideo, false, lab.Script{RawSDP: body})
		m := x.invite(x.conference, h.Number(), h.Name())
		x.call(x.conference, bridge.CallRequest{Members: []string{m}})
		x.ended(x.conference, m, bridge.MediaIncompatible)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		call, err := h.WaitState(ctx, lab.Ended)
		cancel()
		if err != nil || call.ACKs == 0 || call.By != lab.ByCaller {
			t.Errorf("answer %d: the phone is left with %+v, %v; want ACK and BYE", i, call, err)
		}
	}
	x.unaffected()
}

// Broken packets from the right address: cut, padded and made-up AMR-WB, H.264 and RTCP.
// Nobody falls over, nobody is dropped, and the others hear on.
func TestBrokenPackets(t *testing.T) {
	t.Parallel()
	n := startNetwork(t)
	talker := n.handset("+15550100006", lab.PSTN, true)
	listener := n.handset("+15550100007", lab.PSTN, false)
	broken := n.handset("+8613800138001", lab.VolteVideo, false)
	x := convene(n, bridge.VideoConference, fewPictures, talker, listener, broken)
	media, video := x.child("media", process{}), x.child("video", process{})
	x.hears(listener, 25)
	from := listener.ear().count()
	e := broken.ear()
	for i, b := range brokenPackets(e.audioPT(), e.videoPT()) {
		for j, c := range e.conns {
			if _, err := c.WriteToUDPAddrPort(b, e.ports()[j]); err != nil {
				t.Fatalf("packet %d: %v", i, err)
			}
		}
		if i%50 == 49 { // as fast as a phone may send, not faster than a socket's buffer
			x.hears(listener, 1)
		}
	}
	x.hears(listener, 50)
	if missing, _ := gaps(listener.ear().since(from)); missing != 0 {
		t.Errorf("%d packets are missing at the listener", missing)
	}
	x.unaffected()
	x.await(x.conference, x.members[2], "the conference still", in)
	if !media.alive() || !video.alive() {
		t.Errorf("broken packets ended a process: media %v, video %v", media.alive(), video.alive())
	}
}

// brokenPackets are RTP with payloads that no encoder makes, headers that lie, and RTCP
// of the same kind. The same every time.
func brokenPackets(audioPT, videoPT uint8) [][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	var out [][]byte
	seq := uint16(0)
	rtp := func(first, pt uint8, payload []byte) {
		seq++
		b := []byte{first, pt, byte(seq >> 8), byte(seq), 0, 0, byte(seq >> 4), byte(seq << 4), 1, 2, 3, 4}
		out = append(out, append(b, payload...))
	}
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	for n := range 64 { // AMR-WB of every length, with a table of contents that fits or not
		rtp(0x80, audioPT, noise(n))
		rtp(0x80, audioPT, append([]byte{0xf4, 0x40}, noise(n)...))
		rtp(0x80, 0x80|audioPT, append([]byte{0xff, 0xff}, noise(n)...))
	}
	for nal := range 32 { // H.264: every NAL type, cut; STAP-A and FU-A that lie
		for _, n := range []int{0, 1, 2, 7, 200, 1300} {
			rtp(0x80, 0x80|videoPT, append([]byte{0x60 | byte(nal)}, noise(n)...))
		}
	}
	rtp(0x80, videoPT, []byte{0x7c, 0x85, 0x88})                   // FU-A begins and never ends
	rtp(0x80, videoPT, []byte{0x78, 0xff, 0xff, 0x67})             // STAP-A longer than itself
	rtp(0xbf, audioPT, nil)                                        // 15 CSRCs, extension, padding: none there
	rtp(0xa0, audioPT, []byte{1, 2, 255})                          // padding longer than the packet
	rtp(0x90, audioPT, []byte{0xbe, 0xde, 0xff, 0xff, 1})          // extension longer than the packet
	rtp(0x40, audioPT, noise(33))                                  // version 1
	rtp(0x80, 127, noise(33))                                      // a payload type nobody agreed on
	out = append(out, nil, []byte{0x80}, noise(1500), noise(8000)) // and no RTP at all
	for pt := byte(192); pt < 224; pt++ {                          // RTCP of every type with lying lengths
		out = append(out, []byte{0x81, pt, 0, 0}, []byte{0x9f, pt, 0xff, 0xff, 1, 2, 3, 4}, append([]byte{0x81, pt, 0, 6}, noise(24)...))
	}
	return out
}

// RTP from a stranger is counted and not heard.
func TestStrangersAreNotHeard(t *testing.T) {
	t.Parallel()
	n := startNetwork(t)
	victim := n.handset("+15550100006", lab.PSTN, false)
	listener := n.handset("+15550100007", lab.PSTN, false)
	x := convene(n, bridge.AudioConference, noPictures, victim, listener)
	x.hears(listener, 10)
	to, pt := victim.ear().ports()[0], victim.ear().audioPT()
	stranger, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	done := make(chan struct{})
	spoken := make(chan struct{})
	go func() { defer close(spoken); speak(stranger, to, pt, done) }()
	got := x.hears(listener, 100) // 2 s of it
	close(done)
	<-spoken
	if loud := rms(got); loud > 50 {
		t.Errorf("the listener hears the stranger: %.0f", loud)
	}
	m := x.await(x.conference, x.members[0], "the strangers' count", func(m bridge.Member) bool {
		return m.Leg != nil && m.Leg.Quality != nil && m.Leg.Quality.Strangers >= 80
	})
	if m.Leg.Quality.RxPackets != 0 {
		t.Errorf("%d packets count as the phone's", m.Leg.Quality.RxPackets)
	}
	// The same voice from the right address is heard: the above is no accident.
	done, spoken = make(chan struct{}), make(chan struct{})
	conn := victim.ear().conns[0]
	go func() { defer close(spoken); speak(conn, to, pt, done) }()
	eventually(t, "the phone itself to be heard", func() error {
		if loud := rms(x.hears(listener, 10)); loud < 500 {
			return fmt.Errorf("%.0f", loud)
		}
		return nil
	})
	close(done)
	<-spoken
}
