"""The pictures of the probe: two JPEG files as text. Changing a byte here would part every cache from its tensors."""

import base64

COLOUR = base64.b85decode(
    "|JeWF01!$>Nk#wx0RR9200961|JwjV00;&K2L=TQ2L}fU2?z=d6b%du3k(?&6Au&}8Xq1V8XO!TBrYc)A}k{u94I#_EHE)NG&CP4IXyTsJT5ad"
    "GXL8ELjeg12@DGi7!3^=G9erxGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBW?b01*fPNC0310U`hb5di}c"
    "0sq7R9{>OW1pxs80RaI300000000010s{mE1_uZU3Jd?l0JRVR0s#X90t5pE1q1{D00Dgg0s{a95d{(<F+m0sQDFxnaTGFvk)a49Lb1UWQqk}v"
    "Gh%Xr2?`b$7#SKRCMPH<Dl|1VH#j*uLqtVJM@UIZQ&d$}S6EqEV`OD!XJ~0^b98lfcX)YvgM@{Khlq)al9QB`mY0~BnxdnmrKYE-sj9NGw6(Uk"
    "xVgH*!^FkL$H>Xb($mz{*4NnC+Tr5k<mKk)=;`Y5^7Hid_V@Vt`v1fL9{~UZ0RaI40RaI40RR91000010s{mE1_uZU3Jd?l0JRYS0s#U91Oo&I"
    "1q1{D0Rndb0RjUN1O*{61`<J02Vrp&A~Jyp6he`qvB3!=Gg9ysVsg<679=#`CGi&+85$-hC@Cs6Ha9pqIzvQ7Mn_0VN>fx-"
    "R##YAT4Q8oW@l(=YIAgTc6WGrdV+(5g@%WSiHeewl$Dm3n3<ZQqok##r>Lo_va__cwzs&sy28W6#m2|T$;#5x)YaD4*xB0R<K*S$=jiF`^7Hid"
    "_V@Vt`v2Mh3<CiG0ucid06zfpD{<1ZE!U-ITdzv*t(T=0sGU?<rEI+`HraYsb+YuYK(<bm=2fJ6)LEfyohv%oI#zwMbgTX#3fin-"
    "5K6)U0Q5O0`ikeLh4!=M*t~va{hx>S{Jh$wYukU5DcdJX&bCgKcf<;<s>T5XtRN5%Ly~`}u9n(9mFdNE!AjeopJFI|R}nfK*X4G(dfGmfpKTvX"
    "rEMQd^b2UZaZu@<RAybakEKwyi=|Svi=}j4EY&S^9|_)HUCLvPLZ}P(oR%Ldj^y+BXFO(|EIg{zjX14avEJ*-"
    "oheQ#?I!Ks%VXw?W$9Vg$<ni}lcjnEvUIO<wIk7@jT>a?S@y}&v+a|mdJU|7E6b})^(do4**aEzw0$attbHn_tbHpQSTAjTZDW@-"
    "&cCxgpSjJ=ezvu(<olQHW9d{aW9d|FW9eRnYZprNXH5L|lP=oD(x}?S(y3a-"
    "(!CDWE|t$H9+f6e9xF>(Zf9+f!iGm|6NLjL;CoeTSbA|(?P2M~e8J)=n(J5!#gCMMaC!oH<M1Q$teT4Vdj1yvzWemHzTO&)Wrv++?Bde5d*AN0"
    "pL1^2I#nA~=~>pX^shp-kEMM*dS|Cf28FDBDvhjtD?ZjfmFPC=sD<2xRT(6l04vF@O!R5S+Omg;E(~_DS|J&f?tXdNI&toM`&AzhTo~<Qv{ExE"
    "-2C&jbmQFj_N@zbR6@=|s*I9O02N-=E|gHC8kW=H{BQnNK65^+R|n3NukDguxm0&uZ_Uj6TT=C`T`HBVT`HBNT`SP-"
    "A?aJr2gy=J+gN&WRPABu#Zt6~rxoRXA=aP7y8O50Sz^GB6nte+dgIiRd*e9I73E_w4uqn)Z+rZ$Z}a@msK~N;=2ayXE>#t)wfEUt=+1eBQAu?<"
    "`B8Fzz*nh!QSq{AmXm09a!VYlp|2%hmk3uPF`lKeGlDw~azN@lQQ{=<#)Bo?YLZ<u2;oM~-"
    "RIXHfD?{7V<R>5MWh`#u3A65olZ)ZmGyppx8KjFuHQw8&ZS;daaAaLvF1@%`&w%B)h#sd)aor`=~S&_=~?!%^shs-i=}<#dS%k2Xj;e8soF)-"
    "v+W}3P4gtYx_gOnz0OVs0Q9a1;N52RwT?{JHI7*rK2B#V^|ssVXWbTUBI#7^BI#Acl3ras#JJw)Cj$U`S8ELMM}WUOdvyHi<FPa_wEd<cN-"
    "O%?tN9<DLW*;0o~x%%_;0+{wu~st5C^HMwvhDVsaiwRis~&P>BW5Jdz-wm!`$Xlzgt??@_o-"
    "k4?~>gz98z7SZHxr#8^vy#aYK>ToxJ6Q<WXT1*^OBHvaBEz1@du&RL9uWMd25`q$37-O!$OvXAaU*>k}KvHdyyeJkd&`U-HXfxy-"
    "6%{y;<?XSxB^zMB$V@9q8N^6zVdvDC;_gcz6f1yY;mzPg*HaEG+z`!2WP&Aj9FL5q6xyiu59)hoHcS3pA&Of;eWzPf_$Mom?is~%w`f*=XO>;#"
    "_tACJVsrwv7N-?PBuXgslwex#jtNNQ3k#wq-k#wSp`)oo-)zg9})it;;u0lmAHt~;?58^-"
    "G{{Z#=nW*(0L;FVMQX=1GkM4uU<NfS^pVo>i%F8iw#n!6{q?J1*Z#&-l`5%~8$5*JP<uBqi-"
    "^*p`ui%YnOp_73@#)&H+C$TdD6g2|YO}38MCvx%<<<WH+ry~{t0Z+ckaXgrhs>CQ$B#kMiYxPJRjCL{oL!UMcedY|>cR_i#I-"
    "x`uv>^?8J=Yz5OJ`2`sdUC0Igbo5PVbpp{&g%xyW@e+mLaxA)lL|IV6%Z(>~NuU!$xgDNdB+wfDbI@;=)iimMu!x{2#eMlteI-{$+3Z0-"
    "7SRqXBhaYYsA$oTjqfB)G"
)
"""96 x 72 pixels, chroma halved (4:2:0), waves over a checkerboard: textured everywhere, so that any change shows."""

GRAY = base64.b85decode(
    "|JeWF01!$>Nk#wx0RR9200961|JwjV00;&K2L=TQ2L}fU2?z=d6b%du3k(?&6Au&}8Xq1V8XO!TBrYc)A}k{u94I#_EHE)NG&CP4IXyTsJT5ad"
    "GXKB;3kU!`05Smq5di<h03QGV0R;g80RaI400000000000RjUA1qKHQ2?`7U!~nGr00IF60|EpC1qB2I0004f0RjU61Q7)iAu&M)6H#FYB5@Ql"
    "fsvsIBSNvk6;jdgBr{@if(Z&17Z@2DB_<~*DJnEIHa9pqIzvQ7Mn_0VN>fx-"
    "R##YAT4Q8oW@l(=YIAgTc6WGrdV_?8hKGoWijtF*m6n&7nVO=bq@|{(sHv*5v$VCgx45~w!o$SH#>dFX%F@%+)z;V8+1laa<K*S$=jiF`@$&QZ"
    "_4fDp`TGCb00;pA002J#^B=Q&S28WVtF2paYUfhh+PfI-"
    "y{if<Z))s*&BsdNe$DM&P`382ac#Y;u1jxfz>eG6yEv`As{`!Zbggf*dsi|oy{oNTZ))dK+uFMr?Y*lCD{pG-"
    "e$B^9;eO5ST~N06u5oR>tFB9LYQT=$+PgTdy{iN4+;pvfvwK%CExoI)TW@OTQrp_Q8122Q3M+4F?0(J1O5wiE?OjN=_O5Yly{oQEZ)(7f+uFN0"
    "t-Y%Q?A&y%f3tg6FfF~Sty^zu=Th6+yBO`gs|qV`YV3Z^$4cP*rLL$%wazR{U2;UVfgDR(elqb2_&35A+W!F9{@M0lFZUj2m%DU|pL+)w-"
    "JYGPe5J*I|Je"
)
"""50 x 61 pixels of the same, in gray."""

PICTURES = (COLOUR, GRAY)
