-- The I-CSCF's list of S-CSCFs and what they can do.
CREATE TABLE version(table_name VARCHAR(32), table_version INTEGER);
CREATE TABLE nds_trusted_domains(id INTEGER PRIMARY KEY, trusted_domain VARCHAR(83));
CREATE TABLE s_cscf(id INTEGER PRIMARY KEY, name VARCHAR(83), s_cscf_uri VARCHAR(83));
CREATE TABLE s_cscf_capabilities(id INTEGER PRIMARY KEY, id_s_cscf INTEGER, capability INTEGER);
INSERT INTO nds_trusted_domains VALUES(1, '{{.Domain}}');
INSERT INTO s_cscf VALUES(1, 'scscf', 'sip:{{.SCSCF}}');
INSERT INTO s_cscf_capabilities VALUES(1, 1, 0), (2, 1, 1);
